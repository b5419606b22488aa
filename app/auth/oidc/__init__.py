"""Single sign-on: people log in at an OpenID provider, and programs bring its tokens."""
