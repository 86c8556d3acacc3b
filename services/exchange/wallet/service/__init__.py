"""The wallet's contracts, served."""
