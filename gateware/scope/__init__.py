"""The logic analyzer: probes chosen at build time, sampled in every cycle around a trigger."""
