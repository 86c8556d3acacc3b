"""Where the admin service's contracts meet what it reads."""
