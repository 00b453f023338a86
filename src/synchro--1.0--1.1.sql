/* src/synchro--1.0--1.1.sql: what version 1.1 adds */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION or ALTER EXTENSION
\echo Use "ALTER EXTENSION synchro UPDATE TO '1.1'" to load this file. \quit

--
-- First copy
--

--
-- Preview
--

--
-- Comparing
--

--
-- Checking
--

--
-- Beginning anew
--

--
-- Monitoring
--
