"""What every armillary server and client stands on: streams, outboxes, sessions, dialling. Trio only."""
