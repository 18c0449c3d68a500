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

    /// What a folder has of a study, as a comparison.
    let ofStudy (command: string) (out: string) (study: Study) (cells: Job list) : Comparison =
        let names = [ for s in study.Streams -> s.Stream.Name ]
        let own (job: Job) = job.Stream.Name = names.Head && job.Order = study.Orders.Head && job.Seed = study.Seeds.Head
        // Labels as plans have them, in the order in which the methods were asked for.
        let methods =
            [ for job in cells do
                  if own job then
                      job.Plan.Label, job.Plan.Method.Role ]

        let place value all = List.findIndex ((=) value) all

        let state (job: Job) (record: CellRecord option) =
            record
            |> Option.map CellState.ofRecord
            |> Option.defaultValue CellState.Missing
            |> CellState.map (Lines.ofCell job.Cell)

        { Methods = methods
          Streams = names
          Seeds = study.Seeds
          Orders = study.Orders.Length
          Cells =
            StudyFolder.records out cells
            |> List.map (fun (job, record) -> job.Cell, state job record)
            |> List.sortBy (fun (c, _) -> place c.Stream names, place c.Method (List.map fst methods), c.Order, c.Seed)
          Command = command }
