-- Where the leader takes its followers' links: host:port.
ALTER TABLE journal_lease ADD COLUMN address text NOT NULL DEFAULT '';
