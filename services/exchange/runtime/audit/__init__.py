"""The audit trail: who did what, from where, why and with which outcome, in one chain that shows tampering."""
