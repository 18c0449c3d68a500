namespace Cmcl

/// A comparison with the metrics of every finished cell worked out.
type Measured =
    private
        { Source: Comparison
          Values: Map<Cell, Map<string, float>> }

    member m.Comparison = m.Source

[<RequireQualifiedAccess>]
module Measured =
    /// Of a method that starts again at every step the end tells nothing: what it learned and what that cost.
    let private counts (role: Role) (metric: Metric) =
        role <> Role.Restart
        || metric.Name.StartsWith("learned_", System.StringComparison.Ordinal)
        || List.contains metric.Name [ "seconds"; "bytes_state"; "replayed"; "gap" ]

    /// Every metric of the registry for each finished cell.
    let ofComparison (c: Comparison) : Measured =
        let roles = Map c.Methods

        let figures (label: string) (rows: Row list) =
            let role = Roles.find roles label

            Map
                [ for metric in Metric.all do
                      if counts role metric then
                          match metric.Of rows with
                          | Some value -> metric.Name, value
                          | None -> () ]

        { Source = c
          Values =
            Map
                [ for cell, state in c.Cells do
                      match state with
                      | CellState.Finished rows -> cell, figures cell.Method rows
                      | _ -> () ] }

    /// The labels in the order asked for.
    let methods (m: Measured) : string list = m.Source.Methods |> List.map fst

    let roles (m: Measured) : Roles = Map m.Source.Methods

    /// Is it a bound that the others are read against?
    let isBound (label: string) (m: Measured) : bool = Roles.isBound (roles m) label

    /// The labels that compete, in the order asked for.
    let competing (m: Measured) : string list = methods m |> List.filter (fun label -> not (isBound label m))

    /// Every figure of a finished cell.
    let figures (cell: Cell) (m: Measured) : Map<string, float> = Map.tryFind cell m.Values |> Option.defaultValue Map.empty

    /// A metric of one method in one order: seed and value, for the seeds that have it.
    let bySeed (stream: string) (order: int) (label: string) (metric: Metric) (m: Measured) : (int * float) list =
        [ for seed in m.Source.Seeds do
              let cell =
                  { Stream = stream
                    Method = label
                    Order = order
                    Seed = seed }

              match Map.tryFind metric.Name (figures cell m) with
              | Some value -> seed, value
              | None -> () ]

    /// How many seeds of a method are finished in one order.
    let finished (stream: string) (order: int) (label: string) (m: Measured) : int =
        m.Values |> Seq.filter (fun (KeyValue(c, _)) -> c.Stream = stream && c.Order = order && c.Method = label) |> Seq.length

    /// Its mean and standard deviation over seeds, in the stream's own order; None if no seed has it.
    let spread (stream: string) (label: string) (metric: Metric) (m: Measured) : Spread option =
        bySeed stream 0 label metric m |> List.map snd |> Transfer.meanSd

    /// What ended early: the cell and why.
    let failures (m: Measured) : (Cell * string) list =
        m.Source.Cells
        |> List.choose (fun (cell, state) ->
            match state with
            | CellState.Failed message -> Some(cell, message)
            | _ -> None)

    /// How many cells are not known yet.
    let missing (m: Measured) : int = m.Source.Cells |> List.filter (fun (_, state) -> state = CellState.Missing) |> List.length
