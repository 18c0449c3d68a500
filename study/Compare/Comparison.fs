namespace Cmcl

/// Methods × seeds × orders × streams, as far as they are finished.
type Comparison =
    {
        /// Labels in the order in which they were asked for, with what their figures are to be read as.
        Methods: (string * Role) list
        /// Splits of one stream (`Resplit`) are compared as one.
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

    /// Whether a cell's stream is this one, or this one with another split of its items.
    let isOf (stream: string) (cell: Cell) : bool = cell.Stream = stream || fst (Resplit.parse cell.Stream) = stream

    /// The numbers of the splits that a stream is compared on; 0 is its own.
    let splits (stream: string) (c: Comparison) : int list =
        [ for cell, _ in c.Cells do
              if isOf stream cell then
                  snd (Resplit.parse cell.Stream) ]
        |> List.distinct
        |> List.sort

    /// Whether there are several orders, or several splits of a stream.
    let isSpread (c: Comparison) : bool = c.Orders > 1 || c.Streams |> List.exists (fun stream -> (splits stream c).Length > 1)

    /// Names of streams, several splits of one by the name of that one.
    let private compared (streams: string list) : string list =
        let splits = streams |> List.countBy (Resplit.parse >> fst) |> Map.ofList

        [ for name in streams do
              let stream, _ = Resplit.parse name
              if splits[stream] > 1 then stream else name ]
        |> List.distinct

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
          Streams = compared names
          Seeds = study.Seeds
          Orders = study.Orders.Length
          Cells =
            StudyFolder.records out cells
            |> List.map (fun (job, record) -> job.Cell, state job record)
            |> List.sortBy (fun (c, _) -> place c.Stream names, place c.Method (List.map fst methods), c.Order, c.Seed)
          Command = command }
