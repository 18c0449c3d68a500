namespace Cmcl

open System
open System.Globalization

/// Options that move together, and the values that they take one after another.
type Axis = { Options: string list; Values: string list }

/// The values among which a method's settings are looked for: every combination of the values of its axes is a trial.
type Grid = Axis list

[<RequireQualifiedAccess>]
module Grid =
    let private axis options values : Axis = { Options = options; Values = values }

    /// The grid that a method declares: its rates where it trains, and the values that its options say are tried of them, an option that goes with another
    /// beside that one. Example: `Registry.find "gem" |> Check.get |> Grid.declared`.
    let declared (entry: Entry) : Grid =
        let beside name =
            [ for o in entry.Options do
                  if o.Range = TuneRange.With name then
                      o.Name ]

        [ if Method.trains entry.Method then
              axis [ Settings.rate.Name ] entry.Rates
          for o in entry.Options do
              match o.Range with
              | TuneRange.Among values -> axis (o.Name :: beside o.Name) values
              | TuneRange.With _
              | TuneRange.Stays -> () ]

    let private form = "OPTION=VALUE,VALUE;OPTION=VALUE,… (OPTION=OPTION=VALUE,… for options that move together)"

    /// Reads a grid as users write it. Example: `Grid.parse "lr=1e-4,5e-4;threshold=partner-threshold=trace:1e-3,trace:1e-2"`.
    /// Faults: `BadValue`, also for an option or a value that stands there twice.
    let parse (text: string) : Result<Grid, Fault list> =
        let parts (separator: char) (s: string) = s.Split(separator, StringSplitOptions.TrimEntries) |> List.ofArray
        let once xs = not (List.isEmpty xs) && List.distinct xs = xs && not (List.contains "" xs)

        let axes =
            [ for part in parts ';' text do
                  match List.rev (parts '=' part) with
                  | values :: options -> axis (List.rev options) (parts ',' values)
                  | [] -> () ]

        if once (List.collect _.Options axes) && axes |> List.forall (fun a -> once a.Options && once a.Values) then
            Ok axes
        else
            Error [ Fault.BadValue("--grid", $"{form}, each option and each of its values once", text) ]

    /// Every combination, the last axis moving fastest: each option with its value.
    let trials (grid: Grid) : (string * string) list list =
        let along (a: Axis) (rest: (string * string) list list) =
            [ for value in a.Values do
                  for others in rest -> [ for option in a.Options -> option, value ] @ others ]

        List.foldBack along grid [ [] ]

    /// At most so many of `count` trials, by their places: all of them, or a choice without repetition that the seed decides.
    let draw (most: int) (seed: Seed) (count: int) : int list =
        if count <= most then
            [ 0 .. count - 1 ]
        else
            use scope = TorchSharp.torch.NewDisposeScope()

            (Seed.permutation (int64 count) seed).data<int64>().ToArray()
            |> Array.truncate most
            |> Array.map int
            |> Array.sort
            |> List.ofArray

    /// A value as a number: that of `trace:1e-3` is 1e-3. None for a word.
    let private number (value: string) : float option =
        match Double.TryParse(Array.last (value.Split ':'), NumberStyles.Float, CultureInfo.InvariantCulture) with
        | true, x -> Some x
        | _ -> None

    /// The options of a trial whose value is the least or the largest of those that were tried: better ones may lie beyond. Axes
    /// of one value, or of words, have no edge.
    let edges (grid: Grid) (trial: (string * string) list) : string list =
        [ for a in grid do
              let values = a.Values |> List.choose number

              if values.Length = a.Values.Length && values.Length > 1 then
                  match trial |> List.tryFind (fun (option, _) -> option = a.Options.Head) |> Option.bind (snd >> number) with
                  | Some x when x = List.min values || x = List.max values -> yield! a.Options
                  | _ -> () ]
