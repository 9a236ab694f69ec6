"""Tables read and written in pieces, one module per format; `fastimpute.io.source` and `.sink` choose among them."""
