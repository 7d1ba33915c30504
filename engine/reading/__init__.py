"""What faces read: the store in the JSON shapes that the design promises. No torch here.

`views` is the door; `shapes`, `status`, `plans` and `versionrows` are the shapes; `lines` and
`history` follow the line of the present model, `answers` its samples, `queuelist` the queue.
"""
