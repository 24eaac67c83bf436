"""The lab network: a manager links clients to services by name."""
