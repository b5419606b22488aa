"""What all endpoints share: middleware, forms, pages, headers, and the API's description."""
