namespace Cmcl

/// Methods × seeds × orders × streams, as far as they are finished.
type Comparison =
    {
        /// Labels in the order in which they were asked for, with what their figures are to be read as.
        Methods: (string * Role) list
        Streams: string list
        Seeds: int list
        /// How many orders of the steps: 0 .. n − 1.
        Orders: int
        /// With the measurements of those that are finished: rows of `results.csv` by step and task, without aggregates.
        Cells: (Cell * CellState<Row list>) list
        /// The command line, to repeat it.
        Command: string
    }
