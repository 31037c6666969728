"""The whole of it: real sockets, real time, Hypercorn's trio worker."""
