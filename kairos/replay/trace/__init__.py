"""Stepping back in time inside a function: records it line by line, and walks over the record in both directions.

The way of a trace:

    backends    sys.monitoring (3.12+) or sys.settrace (3.11) says what runs
    recorder    decides what is kept, and looks at the locals that a line has touched
    capture     takes a bounded snapshot of a value without running a line of the user's code
    writing     blanks secrets, then packs all into a `.ktrace` file; `reading` opens one, block by block
    history     `Trace`: frames, locals and writes at any position, steps forwards and backwards
    stepper     the commands of the terminal;  `dap` the same for an IDE

A position is the number of an event, from 0. The locals at a position are those on arrival there: what the line
itself does is seen at the next event of its frame.
"""
