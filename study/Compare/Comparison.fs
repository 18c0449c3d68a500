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

[<RequireQualifiedAccess>]
module Comparison =
    /// The finished cells of one stream, from their rows by the number of the order. Methods without rows have no cells.
    let ofRows
        (stream: string)
        (methods: (string * Role) list)
        (seeds: int list)
        (command: string)
        (orders: Map<int, Row list>)
        : Comparison =
        let cells =
            [ for KeyValue(order, rows) in orders do
                  for (label, seed), own in rows |> List.groupBy (fun r -> r.Method, r.Seed) do
                      { Stream = stream
                        Method = label
                        Order = order
                        Seed = seed },
                      CellState.Finished own ]

        { Methods = methods
          Streams = [ stream ]
          Seeds = seeds
          Orders = orders.Count
          Cells = cells
          Command = command }
