"""rrl: visual robot learning as a matter of configuration."""

__version__ = "0.1.0"
