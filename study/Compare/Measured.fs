namespace Cmcl

/// What chance decides of one figure: which items are in which part, and what a seed decides.
type Replicate = { Split: int; Seed: int }

/// A comparison with the metrics of every finished cell worked out.
type Measured =
    private
        {
            Source: Comparison
            Values: Map<Cell, Map<string, float>>
            /// The cells of a stream, an order and a method.
            Places: Map<string * int * string, (Replicate * Cell) list>
        }

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

        let replicates stream =
            [ for cell, _ in c.Cells do
                  match List.tryFindIndex ((=) cell.Seed) c.Seeds with
                  | Some place when Comparison.isOf stream cell ->
                      let split = snd (Resplit.parse cell.Stream)
                      (stream, cell.Order, cell.Method), (split, place), ({ Split = split; Seed = cell.Seed }, cell)
                  | _ -> () ]

        { Source = c
          Places =
            c.Streams
            |> List.collect replicates
            |> List.groupBy (fun (key, _, _) -> key)
            |> List.map (fun (key, own) ->
                key, own |> List.sortBy (fun (_, place, _) -> place) |> List.map (fun (_, _, found) -> found))
            |> Map.ofList
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

    let private places (stream: string) (order: int) (label: string) (m: Measured) : (Replicate * Cell) list =
        Map.tryFind (stream, order, label) m.Places |> Option.defaultValue []

    /// A metric of one method in one order, for the splits and seeds that have it.
    let replicates (stream: string) (order: int) (label: string) (metric: Metric) (m: Measured) : (Replicate * float) list =
        [ for replicate, cell in places stream order label m do
              match Map.tryFind metric.Name (figures cell m) with
              | Some value -> replicate, value
              | None -> () ]

    /// How many cells of a method are finished in one order.
    let finished (stream: string) (order: int) (label: string) (m: Measured) : int =
        places stream order label m |> List.filter (fun (_, cell) -> m.Values.ContainsKey cell) |> List.length

    /// How many cells there are of each method in one order: seeds, in every split.
    let asked (stream: string) (m: Measured) : int = m.Source.Seeds.Length * (Comparison.splits stream m.Source).Length

    /// Its mean and standard deviation over splits and seeds, in the stream's own order; None where nothing has it.
    let spread (stream: string) (label: string) (metric: Metric) (m: Measured) : Spread option =
        replicates stream 0 label metric m |> List.map snd |> Transfer.meanSd

    /// What ended early: the cell and why.
    let failures (m: Measured) : (Cell * string) list =
        m.Source.Cells
        |> List.choose (fun (cell, state) ->
            match state with
            | CellState.Failed message -> Some(cell, message)
            | _ -> None)

    /// How many cells are not known yet.
    let missing (m: Measured) : int = m.Source.Cells |> List.filter (fun (_, state) -> state = CellState.Missing) |> List.length
