"""KYC: who users are, checked by people, kept encrypted, and what each tier lets them do."""
