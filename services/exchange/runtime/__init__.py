"""What every service stands on: clock, configuration, logs, metrics, the gRPC server, errors, Postgres."""
