"""Shows numbers and pictures to people, and writes them for programs. This room knows no models."""
