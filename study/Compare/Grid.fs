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

    let private plain: Grid =
        [ axis [ "lr" ] [ "2e-5"; "5e-5"; "1e-4"; "1.5e-4"; "2e-4"; "3e-4"; "4e-4"; "5e-4"; "7e-4"; "1e-3"; "2e-3"; "3e-3" ] ]

    /// Methods that keep a step from what others need bear larger rates than those that weigh old against new.
    let private protecting = axis [ "lr" ] [ "5e-4"; "1e-3"; "2e-3" ]

    let private weighing = axis [ "lr" ] [ "2e-4"; "5e-4"; "1e-3" ]
    let private shares = [ "trace:3e-4"; "trace:1e-3"; "trace:3e-3"; "trace:1e-2" ]

    /// The declared grid of every method that has one: twelve trials each, so that no method is looked at more closely than
    /// another.
    let declared: (string * Grid) list =
        [ "vanilla", plain
          "individual", plain
          "joint", plain
          "eigenbasis-only", plain
          "dns", [ protecting; axis [ "threshold"; "partner-threshold" ] shares ]
          "dns-soft", [ protecting; axis [ "tau" ] [ "3e-6"; "1e-5"; "3e-5"; "1e-4" ] ]
          "dns-trust", [ protecting; axis [ "budget" ] [ "0.03"; "0.1"; "0.2"; "0.4" ] ]
          "nsp", [ weighing; axis [ "threshold" ] shares ]
          "reference", [ weighing; axis [ "threshold" ] [ "absolute:1e-4"; "absolute:1e-3"; "absolute:1e-2"; "absolute:1e-1" ] ]
          "gem", [ weighing; axis [ "margin" ] [ "0"; "0.1"; "0.5"; "1" ] ]
          "der", [ weighing; axis [ "alpha" ] [ "1"; "10"; "100"; "1000" ] ]
          "derpp", [ weighing; axis [ "alpha" ] [ "10"; "100" ]; axis [ "beta" ] [ "0.5"; "1" ] ]
          "ewc", [ weighing; axis [ "lambda" ] [ "3"; "30"; "300"; "3000" ] ]
          "co2l", [ weighing; axis [ "lambda" ] [ "0.3"; "1"; "3"; "10" ] ]
          "c-flat", [ weighing; axis [ "rho" ] [ "0.05"; "0.1"; "0.2"; "0.5" ] ]
          "cila", [ weighing; axis [ "ratio" ] [ "1"; "3"; "10"; "30" ] ] ]

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
