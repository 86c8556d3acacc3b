"""A network of our own, kept in PostgreSQL: the default connector, with reorgs, duplicates and delays by seed."""
