"""The lab network without I/O: packets, handshakes, who is linked with what. Pure and synchronous."""
