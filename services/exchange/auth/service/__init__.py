"""The auth service's contracts: requests in, messages out. Only here are generated types known."""
