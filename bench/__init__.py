"""Measures Kairos on the embedded Postgres, everything durable: `make bench`."""
