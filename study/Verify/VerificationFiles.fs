namespace Cmcl

open System.IO

/// The tables of a verification: `verify.csv`, every condition at every place, and `curves.csv`, the points behind the figures.
[<RequireQualifiedAccess>]
module VerificationFiles =
    /// Makes sure that a verification can go to the folder; see `ResultsFolder.claim`.
    let prepare (force: bool) (folder: string) : Result<unit, Fault list> =
        ResultsFolder.claim ([ "verify.csv"; "curves.csv"; "verify.html" ], []) force folder

    let private optional = Option.map Csv.number >> Option.defaultValue ""

    let internal findingsHeader = [ "run"; "condition"; "where"; "value"; "bound"; "tolerance"; "exact_to"; "must"; "holds" ]

    /// Writes `verify.csv` into a folder.
    let writeFindings (folder: string) (findings: Finding list) : Result<unit, Fault list> =
        let fields (f: Finding) =
            let c = f.Condition
            let limits = [ Csv.number c.Value; Csv.number c.Bound; Csv.number c.Tolerance; optional f.ExactTo ]
            [ f.Run; c.Name; c.Where ] @ limits @ [ (if c.Must then "1" else "0"); f.Verdict ]

        Files.writeText (Path.Combine(folder, "verify.csv")) (Csv.write findingsHeader fields findings)

    let internal pointsHeader = [ "figure"; "run"; "series"; "where"; "x"; "y"; "cell" ]

    /// Writes `curves.csv` into a folder.
    let writePoints (folder: string) (points: Point list) : Result<unit, Fault list> =
        let fields (p: Point) = [ p.Figure; p.Run; p.Series; p.Where; Csv.number p.X; Csv.number p.Y; optional p.Cell ]
        Files.writeText (Path.Combine(folder, "curves.csv")) (Csv.write pointsHeader fields points)

    /// Writes both tables.
    let write (folder: string) (v: Verification) : Result<unit, Fault list> =
        [ writeFindings folder v.Findings; writePoints folder v.Points ] |> Check.all |> Result.map ignore
