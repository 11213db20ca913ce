"""rrl: visual robot learning as a matter of configuration."""

__version__ = "0.2.0"
