"""Who may ask for what: keys, scopes, ownership, rates, quotas, and requests without a key."""
