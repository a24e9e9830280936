"""What tools/test-page drives the page with."""
