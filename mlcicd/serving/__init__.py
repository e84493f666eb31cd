"""The model server (run by path with the user's interpreter), and what talks to one: smoke requests and
replay."""
