// How much room is left? The spectra of old data before every step and the directions that DNS protects, for each modality, of its inputs and of its
// partners' outputs, over the stream, with the first of --seeds:
//
//     dotnet fsi scripts/spectrum.fsx
#load "options.fsx"

open Cmcl
open Options

/// For a modality and side before every step: protected directions, all directions, the share of energy outside, participation (Σλ)²/Σλ².
let ranks (result: StudyResult) =
    [ for (modality, side), own in result.Spectra |> List.groupBy (fun s -> s.Modality, s.Side) do
          for step, rows in own |> List.groupBy _.Step do
              let inside, outside = rows |> List.partition (fun s -> s.Protected = Some true)
              let energy = rows |> List.sumBy _.Energy

              modality,
              side,
              step,
              inside.Length,
              rows.Length,
              List.sumBy _.Energy outside / energy,
              energy ** 2.0 / (rows |> List.sumBy (fun s -> s.Energy ** 2.0)) ]

Script.run Script.studies (fun asked ->
    let asked = { asked with Seeds = [ asked.Seeds.Head ] }
    let result = Script.study (Script.stream "emoji" asked) [ Dns.defaults ] asked |> Run.go
    let ranks = ranks result

    let table =
        [ for modality, side, step, inside, all, outside, participation in ranks do
              [ modality; side; string step; $"{inside}/{all}"; outside.ToString "0.0000"; participation.ToString "0.0" ] ]
        |> TextTable.make result.Stream [ "modality"; "side"; "before step"; "protected"; "energy outside"; "participation" ]
        |> TextTable.note
            "Participation: (Σλ)²/Σλ², as many equal directions would spread as far. A modality has spectra in the steps that train it after its first."

    let over (value: int -> float -> float) =
        [ for (modality, side), own in ranks |> List.groupBy (fun (modality, side, _, _, _, _, _) -> modality, side) do
              $"{modality}, {side}",
              [ for _, _, step, inside, _, _, participation in own -> float step, value inside participation ] ]

    let last = result.Spectra |> List.map _.Step |> List.max

    (Script.sheet "Spectra over the stream" "How much of each space old data take." [ result ] asked
     |> Sheet.chart
         "Protected directions"
         "A line a modality and side."
         (Plot.lines ("before step", false) ("protected directions", false) (over (fun inside _ -> float inside)))
     |> Sheet.chart
         "Participation of the spectra"
         "As many equal directions would spread as far."
         (Plot.lines ("before step", false) ("(Σλ)²/Σλ²", false) (over (fun _ participation -> participation))),
     result.Spectra |> List.filter (fun s -> s.Step = last) |> List.map _.Modality |> List.distinct)
    ||> List.fold (fun sheet modality ->
        sheet
        |> Sheet.chart
            $"Spectrum of {modality} before step {last}"
            "Thick is protected."
            (Plot.spectrum "dns" last modality result))
    |> fun sheet ->
        let spectra =
            [ for s in result.Spectra ->
                  [ s.Method
                    string s.Seed
                    string s.Step
                    s.Modality
                    s.Side
                    string s.Index
                    TextTable.number s.Energy
                    string (s.Protected = Some true) ] ]

        TextTable.make "" [ "method"; "seed"; "step"; "modality"; "side"; "index"; "energy"; "protected" ] spectra
        |> TextTable.save (System.IO.Path.Combine(asked.Out, "spectra.csv"))
        |> Check.getAll

        Script.finish [ result ] [ table ] sheet asked)
