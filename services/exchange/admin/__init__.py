"""The admin service: what operators look at across services; so far the audit trail."""
