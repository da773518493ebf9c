"""HTTP only: decode the request, call the serving layer, render the answer."""
