"""Virtual network interfaces: the ingress classifier (port, VLAN or MAC -> tenant, destination, class)."""
