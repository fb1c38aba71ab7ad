"""Software twins of the shards that run in the device's engine slots: the same requests, the same answers."""
