"""KATCP without I/O: messages, values, sensors, sampling, handlers, conversations. Pure and synchronous."""
