"""Tests of tools/read_holdfast; tools/test-read-holdfast runs them."""
