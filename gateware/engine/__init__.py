"""Engine slots and the shards loaded in them, their dispatcher, and the traffic generator and checker."""
