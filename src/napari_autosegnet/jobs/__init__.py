"""One job each: its arguments, which the API, the commands and the dock share, and what it does with them."""
