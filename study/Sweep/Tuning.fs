namespace Cmcl

open System
open System.Globalization
open System.IO
open System.Text.Encodings.Web
open System.Text.Json
open System.Text.Json.Nodes

/// One combination of options of a method.
type Trial =
    {
        /// As the user wrote it: `dns` or `dns[sides=input]`.
        Method: string
        /// Its place among the method's trials, from 1.
        Number: int
        /// Those that are tried, without what the user wrote.
        Options: (string * string) list
    }

    /// The method with all its options, as `Plan.resolve` reads it.
    member t.Written: string =
        let own = String.Join(";", [ for name, value in t.Options -> $"{name}={value}" ])

        if t.Method.EndsWith ']' then $"{t.Method.TrimEnd ']'};{own}]" else $"{t.Method}[{own}]"

/// A trial with what it left for each seed: the final figures (`Results.aggregates`) by metric, or why there are none.
type Tried =
    {
        Trial: Trial
        Role: Role
        Seeds: (int * Result<Map<string, float>, string>) list
        /// By seed, of those that ended with a file.
        Seconds: Map<int, float>
    }

/// Settings chosen on validation rows.
[<RequireQualifiedAccess>]
module Tuning =
    /// Which trials are drawn from a grid that has more than may be run.
    let drawSeed: Seed = Seed.ofInt 0 |> Seed.split "trials"

    /// A method's name without options.
    let name (method: string) : string = (method.Split '[')[0]

    /// The trials of a method, at most so many.
    let trials (most: int) (method: string) (grid: Grid) : Trial list =
        let all = Grid.trials grid

        [ for i, place in Grid.draw most (Seed.split (name method) drawSeed) all.Length |> List.indexed ->
              { Method = method; Number = i + 1; Options = all[place] } ]

    /// Where recall is read that a method is judged by. One that starts again at every step ends with the heads of its last step
    /// alone, so that what it learned counts, and no deviation.
    let private judged (role: Role) : string * string option =
        if role = Role.Restart then "learned_r10", None else "r10", Some "deviation_rel"

    /// Mean over seeds of recall@10 and of the deviation of old scores, where there is one. None for a trial of which a seed failed.
    let judge (tried: Tried) : (float * float option) option =
        let recall, deviation = judged tried.Role

        let figures =
            tried.Seeds
            |> List.choose (fun (_, result) ->
                match result with
                | Ok f -> Some f
                | Error _ -> None)

        let mean metric =
            match figures |> List.choose (Map.tryFind metric) with
            | some when some.Length = tried.Seeds.Length && not some.IsEmpty -> Some(List.average some)
            | _ -> None

        mean recall |> Option.map (fun r -> r, Option.bind mean deviation)

    /// The rule of choice: of the trials whose recall@10 is within so many points (hundredths) of the best, the one whose old scores
    /// moved least; where any of them has no deviation, the best recall. The first of equals; None if no trial has figures.
    /// Example: `Tuning.choose 0.5 [ Some(0.500, Some 0.4); Some(0.497, Some 0.1); None ]` is the second.
    let choose (within: float) (judged: (float * float option) option list) : int option =
        let measured =
            [ for i, j in List.indexed judged do
                  match j with
                  | Some(recall, deviation) -> i, recall, deviation
                  | None -> () ]

        match measured with
        | [] -> None
        | _ ->
            let top = measured |> List.map (fun (_, recall, _) -> recall) |> List.max
            // Points are decimal numbers: 0.5 below 50 is 49.5, whatever binary fractions make of it.
            let near = measured |> List.filter (fun (_, recall, _) -> recall >= top - within / 100.0 - 1e-12)
            let known = near |> List.forall (fun (_, _, deviation) -> deviation.IsSome)

            near
            |> List.minBy (fun (_, recall, deviation) -> (if known then deviation.Value else 0.0), -recall)
            |> fun (i, _, _) -> Some i

    /// The rule in words.
    let rule (within: float) : string =
        let points = within.ToString("R", CultureInfo.InvariantCulture)

        $"of the trials whose mean recall@10 on validation rows is within {points} points of the method's best, the one that moves old scores least (of one that starts again at every step: the best learned recall@10)"

    let private metrics = [ "r10"; "bwt_r10"; "acc"; "bwt_acc"; "deviation_rel"; "learned_r10" ]

    /// `trials.csv`: a line for each trial and seed, sorted by method and trial. `chosen` has the number of the chosen trial and the
    /// options at the edge of their grid, by method. Columns of options that a method does not take are empty.
    let write (out: string) (chosen: Map<string, int * string list>) (all: Tried list) : Result<unit, Fault list> =
        let options = all |> List.collect (fun t -> List.map fst t.Trial.Options) |> List.distinct
        let number (x: float) = x.ToString("R", CultureInfo.InvariantCulture)
        let shown value = value |> Option.map number |> Option.defaultValue ""

        let fields (t: Tried, seed: int, result: Result<Map<string, float>, string>) =
            let figures = result |> Result.defaultValue Map.empty
            let mine = chosen |> Map.tryFind t.Trial.Method |> Option.filter (fun (n, _) -> n = t.Trial.Number)

            [ t.Trial.Method
              string t.Trial.Number
              for option in options do
                  t.Trial.Options |> List.tryFind (fst >> (=) option) |> Option.map snd |> Option.defaultValue ""
              string seed
              for metric in metrics do
                  shown (Map.tryFind metric figures)
              shown (Map.tryFind seed t.Seconds)
              match result with
              | Ok _ -> "done"
              | Error _ -> "failed"
              match result with
              | Ok _ -> ""
              | Error message -> message
              if mine.IsSome then "1" else "0"
              match mine with
              | Some(_, edges) -> String.Join(" ", edges)
              | None -> "" ]

        let header = [ "method"; "trial" ] @ options @ [ "seed" ] @ metrics @ [ "seconds"; "state"; "message"; "chosen"; "edge" ]

        let rows =
            [ for t in all |> List.sortBy (fun t -> t.Trial.Method, t.Trial.Number) do
                  for seed, result in t.Seeds -> t, seed, result ]

        Files.writeText (Path.Combine(out, "trials.csv")) (Csv.write header fields rows)

    /// Where settings came from.
    type Origin =
        {
            Command: string
            Stream: Cmcl.Stream
            Seeds: int list
            Within: float
            /// Combinations in the grid by method, of which these many were tried.
            Tried: (string * int * int) list
            Created: DateTimeOffset
        }

    /// `preset.json`: the chosen options of every method as a stream's description takes them, under `preset.methods` (what the stream
    /// says of the method already is among them), and where they came from.
    let writePreset (out: string) (origin: Origin) (chosen: Trial list) : Result<unit, Fault list> =
        let text (s: string) : JsonNode | null = JsonValue.Create s
        let whole (n: int) : JsonNode | null = JsonValue.Create n

        let node (pairs: (string * (JsonNode | null)) seq) : JsonNode | null =
            let o = JsonObject()

            for name, value in pairs do
                o[name] <- value

            o

        let fixed' (method: string) =
            match method.IndexOf '[' with
            | -1 -> []
            | i ->
                [ for part in method.Substring(i + 1).TrimEnd(']').Split([| ';'; ',' |], StringSplitOptions.RemoveEmptyEntries) do
                      match part.Split('=', 2) with
                      | [| option; value |] -> option.Trim(), value.Trim()
                      | _ -> () ]

        let options (t: Trial) =
            let before = origin.Stream.Preset.Methods |> Map.tryFind (name t.Method) |> Option.defaultValue Map.empty
            fixed' t.Method @ t.Options |> List.fold (fun all (option, value) -> Map.add option value all) before

        let all =
            node
                [ "preset",
                  node
                      [ "methods",
                        node
                            [ for t in chosen ->
                                  name t.Method, node [ for KeyValue(option, value) in options t -> option, text value ] ] ]
                  "command", text origin.Command
                  "cmcl", text Record.cmclVersion
                  "created", text (origin.Created.ToString("yyyy-MM-ddTHH:mm:sszzz", CultureInfo.InvariantCulture))
                  "stream", text origin.Stream.Name
                  "digest", text origin.Stream.Digest
                  "split", text (string Split.Validation)
                  "seeds", JsonArray([| for s in origin.Seeds -> whole s |])
                  "rule", text (rule origin.Within)
                  "trials",
                  node [ for method, grid, tried in origin.Tried -> method, node [ "grid", whole grid; "tried", whole tried ] ]
                  "drawn", text "trials of a grid that has more are drawn from seed 0" ]

        match all with
        | null -> Ok()
        | all ->
            let style = JsonSerializerOptions(WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping)
            Files.writeText (Path.Combine(out, "preset.json")) (fun w -> w.Write(all.ToJsonString style + "\n"))
