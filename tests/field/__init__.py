"""Inputs that went wrong for somebody, and how each ends now."""
