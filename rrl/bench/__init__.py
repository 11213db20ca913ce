"""`rrl bench`: how fast this machine samples, renders, encodes and learns, against plain references."""
