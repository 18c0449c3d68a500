// Frozen encoders: from pictures, texts and sounds to 256 numbers each, without a network. What they have to fit (principal
// axes, n-grams and their weights, codewords) they fit on base items alone.
#load "pictures.fsx"
#load "texts.fsx"
#load "sounds.fsx"

open System
open Axes
open Pictures
open Texts
open Sounds

/// Every domain's features (items × 256, unit rows).
let encode () : Encoded list =
    let told name encode =
        let watch = Diagnostics.Stopwatch.StartNew()
        let result = encode ()
        printfn "  %s: %.0f s" name watch.Elapsed.TotalSeconds
        result

    told "pictures" encodePictures @ told "texts" encodeTexts @ told "speech" encodeSpeech
