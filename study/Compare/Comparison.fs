namespace Cmcl

/// A cell of a comparison: a method with a seed on a stream whose steps stand in one order.
type Cell =
    {
        Stream: string
        /// The method's label, such as `dns` or `vanilla[lr=1e-3]`.
        Method: string
        /// 0 for the stream's own order of steps.
        Order: int
        Seed: int
    }

/// What is known of a cell.
[<RequireQualifiedAccess>]
type CellState =
    /// Its measurements: rows of `results.csv` by step and task, without aggregates.
    | Done of Row list
    /// Why it ended early: it would again.
    | Failed of message: string
    | Missing

/// Methods × seeds × orders × streams, as far as they are finished.
type Comparison =
    {
        /// Labels in the order in which they were asked for, with what their figures are to be read as.
        Methods: (string * Role) list
        Streams: string list
        Seeds: int list
        /// How many orders of the steps: 0 .. n − 1.
        Orders: int
        Cells: (Cell * CellState) list
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
                      CellState.Done own ]

        { Methods = methods
          Streams = [ stream ]
          Seeds = seeds
          Orders = orders.Count
          Cells = cells
          Command = command }
