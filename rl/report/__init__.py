"""Pictures of a search, and the page that holds them."""
