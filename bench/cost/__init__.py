"""The part about what it costs to be there: memory, connections and idleness.

held     who holds many of something, each in a process of its own: by how much the process grows
idle     who waits: CPU time and wakings of the processes
gateway  the same of web servers with clients that wait
part     what is measured, what is shown, and the aims
"""
