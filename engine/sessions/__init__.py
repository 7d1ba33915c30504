"""What faces and the engine say to each other: engine.sock and the answers to its requests.

`session` is what a face holds, `client` one over the socket, `readonly` one that can only look;
`server`, `connection` and `wire` are the other side, `dispatch` the one place that answers, and
`controlport` the engine as it sees it. No torch here.
"""
